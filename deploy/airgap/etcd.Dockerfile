# Debian's etcd at the paths of the upstream image. Its version is Debian's, not that of the tag (--version tells).
ARG BASE
FROM ${BASE}
COPY etcd etcdctl /usr/local/bin/
ENV ETCDCTL_API=3
EXPOSE 2379 2380
CMD ["/usr/local/bin/etcd"]
