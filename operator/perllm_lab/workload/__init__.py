"""What the lab asks of the nodes: traces, generators, requests and their manifests."""
