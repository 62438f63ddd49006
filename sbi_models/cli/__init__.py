"""The command line `sbi-models`."""
