# A real Synapse for the compose project's profile `demo`. Do not use it as a homeserver in production.
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/synapse && /opt/synapse/bin/pip --quiet --no-cache-dir install matrix-synapse==1.163.2
COPY deploy/synapse-container.py /opt/
RUN install -d -o 65532 -g 65532 /data
USER 65532:65532
ENTRYPOINT ["/opt/synapse-container.py"]
