"""Quota by Kueue: a task in one of its queues runs while its Workload is admitted."""
