"""Measurements of kernels, pipelines and training steps against references and peers."""
