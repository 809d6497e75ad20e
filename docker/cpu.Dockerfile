# The pinned CPU set and mifo_verl: the quick start and the tests, in a container. Build it from the repository's root:
#   docker build -f docker/cpu.Dockerfile -t mifo_verl:cpu .
FROM python:3.11-slim

# for a torch built for CPUs where the default index offers another build; see docker/README.md
ARG PIP_EXTRA_INDEX_URL=""

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /opt/mifo_verl
COPY . .
RUN docker/install.sh cpu \
    && useradd --create-home --uid 1000 mifo \
    && install --directory --owner mifo /runs

USER 1000
# a run's data, and its folder in runs/, are relative to the working directory
WORKDIR /runs
ENTRYPOINT ["python", "-m", "mifo_verl.train"]
CMD ["experiment=quickstart"]
