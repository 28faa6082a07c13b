"""Run the command line: python -m perllm."""

from perllm.cli import main

main()
