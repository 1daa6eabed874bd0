"""The Triton kernels: their cases, their gate, their time, and what they compile to."""
