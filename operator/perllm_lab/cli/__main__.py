"""Run the command line: python -m perllm_lab.cli."""

from perllm_lab.cli import main

main()
