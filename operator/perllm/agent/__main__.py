"""Runs the agent: ``python -m perllm.agent``."""

from perllm.agent.command import agent

agent(prog_name="python -m perllm.agent")
