"""The command line: one small file per command.

A command's module is imported when the command is asked for, and heavy libraries inside its functions.
"""
