"""Parts of a network that PyTorch launches in several pieces, each in one."""
