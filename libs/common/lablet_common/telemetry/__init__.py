"""What a service tells about itself: logs, metrics, traces and health."""
