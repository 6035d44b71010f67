# Training image. Build from the repository root:
#   docker build -f docker/train.Dockerfile -t hypclip-train .
#   docker run --gpus all -v "$PWD/runs:/app/runs" hypclip-train --config configs/quickstart.yaml
FROM python:3.11-slim-bookworm

WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY hypclip ./hypclip
COPY train ./train
COPY serve ./serve
COPY configs ./configs
RUN pip install --no-cache-dir -c constraints.txt ".[train]"

RUN useradd --create-home --uid 1000 hypclip && mkdir runs && chown hypclip runs
USER 1000
ENTRYPOINT ["accelerate", "launch", "train/pretrain.py"]
