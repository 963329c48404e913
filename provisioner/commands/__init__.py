"""One plain function a command: explicit arguments, returns its exit code."""
