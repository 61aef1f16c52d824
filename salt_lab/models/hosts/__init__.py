"""The SALT hosts, one seam a file."""
