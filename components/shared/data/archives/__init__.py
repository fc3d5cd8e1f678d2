"""The members of folders and archives: their readers, names, links and limits."""
