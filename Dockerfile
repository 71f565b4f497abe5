# One image for every program: coordinator, site_agent, sim.cluster, sim.wan, sim.ingest, coordinator.launch.
#   docker build -t geotrain .              podman: scripts/build_image.sh, also where no image registry can be reached
#   docker run geotrain site_agent site=ewr ...
# A base image needs Python 3.11 with venv, and nothing else.
ARG BASE=python:3.11-slim-bookworm

# The packages, in the versions of the lock file: by far the most, and what changes seldom. pip itself stays outside.
FROM ${BASE} AS packages
# Empty: for production. `sim`: with the real data and the pictures of `python -m sim`. `spark`: with PySpark.
ARG EXTRAS=sim
COPY pyproject.toml requirements.lock /opt/geotrain/
RUN cd /opt/geotrain && python3 -m venv --without-pip . && python3 -m venv /tmp/pip \
    && python3 -c 'import os, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
extras = filter(None, os.environ["EXTRAS"].split(",")); \
print("\n".join([*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]))' > wanted.txt \
    && /tmp/pip/bin/pip --python bin/python --no-cache-dir --disable-pip-version-check \
        install --constraint requirements.lock --requirement wanted.txt \
    && rm -rf /tmp/pip

FROM ${BASE} AS program
WORKDIR /source
COPY . .
RUN python3 -m venv /tmp/pip && /tmp/pip/bin/pip --no-cache-dir --disable-pip-version-check \
        install --constraint requirements.lock setuptools \
    && /tmp/pip/bin/pip install --no-deps --no-build-isolation --target /opt/program .

FROM packages
COPY --from=program /opt/program /opt/program
# What a program keeps (spools, caches, data) goes below its working folder: mount a volume there.
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/geotrain geotrain
ENV PATH=/opt/geotrain/bin:/opt/program/bin:$PATH PYTHONPATH=/opt/program PYTHONUNBUFFERED=1
ARG VERSION=source
LABEL org.opencontainers.image.title="geotrain" \
      org.opencontainers.image.description="Train one model in several regions over one globally consistent Aerospike view" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
USER geotrain
WORKDIR /var/lib/geotrain
# The program itself gets the signals: SIGTERM is a graceful stop.
ENTRYPOINT ["python", "-m"]
CMD ["coordinator"]
# Its health is the business of whoever runs it: four programs, four ways to ask (docker-compose.multisite.yml has them).
