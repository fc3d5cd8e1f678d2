"""The networks by name, their layers, and the folder that holds a trained one."""
