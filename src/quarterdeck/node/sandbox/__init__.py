"""What keeps a container in its place: launcher, landlock, bubblewrap, relay. Files here run with the standard library only."""
