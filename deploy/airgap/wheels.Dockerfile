# The build stage of Lablet's image where there is no index: the wheels of requirements.lock, found by pip alone.
ARG BASE
FROM ${BASE}
COPY wheels /wheels
COPY pip.conf /etc/pip.conf
