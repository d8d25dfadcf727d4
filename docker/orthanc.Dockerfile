# syntax=docker/dockerfile:1
# Orthanc as Debian packages it: the one that Thoracle's tests talk to. Its index is in PostgreSQL.

FROM debian:12.11-slim
LABEL org.opencontainers.image.title="Orthanc for Thoracle" \
      org.opencontainers.image.description="An archive beside Thoracle, from Debian's packages."
# Versions are those of the Debian release that the tag names.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends orthanc orthanc-dicomweb orthanc-postgresql \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=10002 --group=10002 --mode=0700 /var/lib/archive \
    && install --directory --mode=0755 /etc/archive
USER 10002:10002
VOLUME ["/var/lib/archive"]
EXPOSE 4242 8042
STOPSIGNAL SIGTERM
# bash opens the port: the image has no program for HTTP.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8042"]
ENTRYPOINT ["Orthanc"]
CMD ["/etc/archive"]
