"""Container images, built on this computer from what its package indexes offer; no registry is asked."""
