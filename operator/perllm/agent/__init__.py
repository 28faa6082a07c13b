"""The agent: one small process per node that runs served tasks as requests to the node's model servers."""
