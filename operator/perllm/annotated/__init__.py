"""Pods of any owner that say in annotations what they ask for."""
