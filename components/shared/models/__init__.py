"""The networks by name, their layers, and the folder that stores a trained one."""
