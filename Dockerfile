# The program on the CPU, for clusters and CI:
#
#     docker build -t rampart .
#     docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/project" rampart matrix.yaml
#
# On clusters without Docker: docs/install.md.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked -p harness

FROM debian:bookworm-slim
# `rampart fetch` downloads data sets over HTTPS.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /source/target/release/rampart /usr/local/bin/rampart
COPY LICENSE-APACHE LICENSE-MIT /usr/local/share/doc/rampart/
# Data sets lie below it unless --data-dir says otherwise; writable for any user.
ENV HOME=/tmp
WORKDIR /project
ENTRYPOINT ["rampart"]
