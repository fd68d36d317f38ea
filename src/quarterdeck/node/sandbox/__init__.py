"""What keeps a container in its place. launcher, landlock and relay run with the standard library only."""
