# syntax=docker/dockerfile:1
# One image for the API and for workers: `python -m api` is its default, a worker is started with `python -m worker`.

FROM python:3.11-slim AS builder
ARG UV_VERSION=0.13.8
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
RUN python -m venv /opt/epochd && pip install --no-cache-dir --quiet "uv==${UV_VERSION}"

# The packages are a layer of their own: it is made again only when a pin changes.
COPY requirements.txt /src/
RUN uv pip install --quiet --python /opt/epochd/bin/python --require-hashes --requirement /src/requirements.txt

COPY pyproject.toml README.md LICENSE /src/
COPY migrations /src/migrations
COPY examples /src/examples
COPY core /src/core
COPY api /src/api
COPY worker /src/worker
COPY epochd /src/epochd
RUN uv pip install --quiet --python /opt/epochd/bin/python --no-deps /src \
 && uv pip uninstall --quiet --python /opt/epochd/bin/python pip


FROM python:3.11-slim
LABEL org.opencontainers.image.title="epochd" \
      org.opencontainers.image.description="Training as a service" \
      org.opencontainers.image.licenses="Apache-2.0"

# Fixed numbers, so that a volume's files have the same owner in every version of the image.
RUN groupadd --gid 10001 epochd \
 && useradd --uid 10001 --gid epochd --no-create-home --home-dir /var/lib/epochd --shell /usr/sbin/nologin epochd \
 && install --directory --owner epochd --group epochd /var/lib/epochd /var/lib/epochd-datasets

COPY --from=builder /opt/epochd /opt/epochd

# Inside a container every address is the container's own; a published port decides who gets in, and a key is needed.
ENV PATH=/opt/epochd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    EPOCHD_DATA_DIR=/var/lib/epochd \
    EPOCHD_DATASETS_DIR=/var/lib/epochd-datasets \
    EPOCHD_HOST=0.0.0.0 \
    EPOCHD_PORT=8000

USER epochd
WORKDIR /var/lib/epochd
VOLUME ["/var/lib/epochd", "/var/lib/epochd-datasets"]
EXPOSE 8000
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]

CMD ["python", "-m", "api"]
