# Debian's haproxy, and wget for the health check. Its version is Debian's, not that of the tag (-v tells).
ARG BASE
FROM ${BASE}
COPY *.deb /packages/
COPY busybox /bin/busybox
RUN dpkg --install /packages/*.deb >/dev/null && rm -r /packages && ln -s /bin/busybox /usr/local/bin/wget
EXPOSE 8000
CMD ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
