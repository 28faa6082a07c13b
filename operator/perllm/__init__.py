"""PerLLM: deadline-aware, energy-minimal placement of LLM inference tasks on edge and cloud nodes."""
