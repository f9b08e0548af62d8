# The wheel's rclone, and busybox for the start command and the health check.
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "mkdir -p /tmp /etc && chmod 1777 /tmp && /bin/busybox --install -s /bin"]
COPY nc rclone /usr/local/bin/
ENV PATH=/usr/local/bin:/bin
ENTRYPOINT ["rclone"]
