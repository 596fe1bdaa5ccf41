# syntax=docker/dockerfile:1
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY pacs ./pacs
COPY migrations ./migrations
RUN python -m venv /opt/pacs && /opt/pacs/bin/pip install --no-cache-dir '.[codecs]'

FROM python:3.12-slim
# A fixed number, so that the owner of files on a mounted volume does not depend on the image.
RUN groupadd --gid 10001 pacs \
 && useradd --uid 10001 --gid pacs --no-create-home --home-dir /data pacs \
 && install --directory --owner pacs --group pacs /data
COPY --from=build /opt/pacs /opt/pacs
ENV PATH=/opt/pacs/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PACS_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 11112
# It asks the server to find and to store something: it fails when the database is gone, the disk is full, or it hangs.
# --start-period leaves time for the schema of a large index to be upgraded.
HEALTHCHECK --interval=15s --timeout=10s --retries=4 --start-period=120s --start-interval=1s \
  CMD ["pacs", "health"]
ENTRYPOINT ["pacs"]
CMD ["serve"]
