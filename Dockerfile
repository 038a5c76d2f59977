# The relay and the agent, each as an image:
#
#   docker build --target server -t quic-tunnel-server .
#   docker build --target client -t quic-tunnel-client .
#
# Nothing here needs BuildKit. The variables that the images take stand at the head of docker/server-entrypoint.sh
# and docker/client-entrypoint.sh; arguments go to the program behind them.

ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

# Our sources, and beside them the manifests alone with sources that hold nothing.
FROM ${RUST_IMAGE} AS sources
WORKDIR /sources
COPY . .
RUN rm -r docker \
    && cp -r /sources /manifests \
    && cd /manifests \
    && find . -type f ! -name Cargo.toml ! -name Cargo.lock -delete \
    && find . -mindepth 2 -name Cargo.toml -printf '%h\n' | while read -r crate; do \
        mkdir -p "$crate/src" && echo '//! Nothing.' >"$crate/src/lib.rs"; \
    done \
    && for program in relay client; do \
        rm "$program/src/lib.rs" && printf '//! Nothing.\nfn main() {}\n' >"$program/src/main.rs"; \
    done \
    && find . -type d -empty -delete

FROM ${RUST_IMAGE} AS builder
WORKDIR /build
RUN command -v setcap \
    || (apt-get update && apt-get install -y --no-install-recommends libcap2-bin && rm -rf /var/lib/apt/lists/*)
# What others have written changes seldom: a layer of its own, which a change of ours leaves alone.
COPY --from=sources /manifests .
RUN cargo build --release --locked --no-default-features -p relay -p client
COPY --from=sources /sources .
# Cargo goes by dates, and the sources that hold nothing are the younger ones.
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --no-default-features -p relay -p client \
    && install -D -t /out/server/bin target/release/server \
    && install -D -t /out/client/bin target/release/client \
    && setcap cap_net_bind_service=+ep /out/server/bin/server
COPY docker/third-party-licences.sh /usr/local/bin/
RUN install -D -m 644 LICENSE /out/doc/quic-tunnel/LICENSE \
    && third-party-licences.sh >/out/doc/quic-tunnel/third-party-licences.txt

# A page for `docker compose up` to publish, where nobody names a service of his own.
FROM ${BASE_IMAGE} AS demo
COPY LICENSE /usr/share/doc/quic-tunnel/
COPY docker/demo-service /usr/local/bin/
USER 10001:10001
EXPOSE 3000/tcp
ENTRYPOINT ["demo-service"]

FROM ${BASE_IMAGE} AS client
LABEL org.opencontainers.image.title="quic-tunnel client" org.opencontainers.image.licenses="MIT"
RUN install -d -o 10001 -g 10001 -m 700 /var/lib/client
COPY --from=builder /out/doc/ /usr/share/doc/
COPY docker/environment.sh docker/client-entrypoint.sh /usr/local/lib/quic-tunnel/
COPY --from=builder /out/client/ /usr/local/
ENV STATE_DIRECTORY=/var/lib/client READY_FILE=/tmp/ready
VOLUME /var/lib/client
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD test -f "$READY_FILE"
ENTRYPOINT ["/usr/local/lib/quic-tunnel/client-entrypoint.sh"]

FROM ${BASE_IMAGE} AS server
LABEL org.opencontainers.image.title="quic-tunnel server" org.opencontainers.image.licenses="MIT"
RUN install -d -o 10001 -g 10001 -m 700 /var/lib/server
COPY --from=builder /out/doc/ /usr/share/doc/
COPY docker/environment.sh docker/server-entrypoint.sh docker/server-healthcheck.sh /usr/local/lib/quic-tunnel/
# As a folder: the classic builder leaves a lone file's capability behind, by which it binds ports below 1024.
COPY --from=builder /out/server/ /usr/local/
ENV STATE_DIRECTORY=/var/lib/server ADMIN_ADDR=127.0.0.1:9433
VOLUME /var/lib/server
USER 10001:10001
EXPOSE 4433/udp 4433/tcp 8443/tcp 443/tcp
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/usr/local/lib/quic-tunnel/server-healthcheck.sh"]
ENTRYPOINT ["/usr/local/lib/quic-tunnel/server-entrypoint.sh"]
