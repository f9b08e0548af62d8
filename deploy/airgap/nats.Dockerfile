# The wheel's nats-server, and busybox for the health check.
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "mkdir -p /tmp /etc && chmod 1777 /tmp && /bin/busybox --install -s /bin"]
COPY nats-server /usr/local/bin/nats-server
ENV PATH=/usr/local/bin:/bin
EXPOSE 4222 8222
ENTRYPOINT ["nats-server"]
