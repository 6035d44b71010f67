# Serving image. Build from the repository root; the model and the index are mounted, all else may be read-only:
#   docker build -f docker/serve.Dockerfile -t hypclip-serve .
#   docker run -p 127.0.0.1:8000:8000 -v "$PWD/runs/quickstart:/run/quickstart" hypclip-serve \
#       --checkpoint /run/quickstart/checkpoint --index /run/quickstart/index
# Every setting is an environment variable too, HYPCLIP_CHECKPOINT and so on; see serve/settings.py.
FROM python:3.11-slim-bookworm

WORKDIR /app
RUN useradd --create-home --uid 1000 hypclip
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY hypclip ./hypclip
COPY train ./train
COPY serve ./serve
COPY configs ./configs
RUN pip install --no-cache-dir -c constraints.txt ".[serve,search,otel,onnx]"

USER 1000
ENV HYPCLIP_HOST=0.0.0.0 PYTHONUNBUFFERED=1
EXPOSE 8000
# Loading the model may take minutes. After that, 503 means that its process is gone or hangs.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m", "serve"]
