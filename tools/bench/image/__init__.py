"""The server's image: containers of it, under podman alone and under systemd."""
