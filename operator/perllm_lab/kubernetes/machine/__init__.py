"""One real machine of the cluster: kubelet, kube-proxy, containerd and runc in namespaces of their own."""
