# mifo_verl on NVIDIA GPUs: torch 2.11.0 for CUDA 13.0, vLLM 0.24.0, flash-attn 2.8.3. Written, not built: no GPU
# machine was at hand. Build it from the repository's root:
#   docker build -f docker/train.Dockerfile -t mifo_verl:train .
# CUDA 13.0 is what verl 0.9.1 names for torch 2.11 (its extra flash-attn-cu130torch211). The devel image has nvcc,
# which flash-attn needs where no wheel fits and vLLM's kernels need at run time.
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04

# versions of Debian packages go away from the archive, so they are not pinned
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        build-essential ca-certificates git ibverbs-providers libibverbs1 libnuma1 librdmacm1 \
        python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ARG PIP_EXTRA_INDEX_URL=""
# A folder or page with a flash-attn wheel for torch 2.11 and CUDA 13 spares the build.
ARG PIP_FIND_LINKS=""
# The build from source: parallel jobs, about 8 GB of memory each, and GPU architectures (80 A100, 90 H100, 100 B200).
# flash-attn's authors state 3 to 5 minutes on 64 cores for all; by that 4 jobs take about an hour. Not measured by us.
ARG MAX_JOBS=4
ARG FLASH_ATTN_CUDA_ARCHS="90"

ENV PATH=/opt/venv/bin:/usr/local/cuda/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /opt/mifo_verl
COPY . .
RUN python3 -m venv /opt/venv \
    && docker/install.sh gpu \
    && useradd --create-home --uid 1001 mifo \
    && install --directory --owner mifo /runs

USER 1001
WORKDIR /runs
# no entry point: the same image is head and worker of a Ray cluster (launch/README.md)
CMD ["python", "-m", "mifo_verl.train", "--help"]
