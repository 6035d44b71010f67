# Serving image. Build from the repository root; the model and the index are mounted:
#   docker build -f docker/serve.Dockerfile -t hypclip-serve .
#   docker run -p 8000:8000 -v "$PWD/runs/quickstart:/run/quickstart" hypclip-serve \
#       --checkpoint /run/quickstart/checkpoint --index /run/quickstart/index --host 0.0.0.0
FROM python:3.11-slim-bookworm

WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY hypclip ./hypclip
RUN pip install --no-cache-dir -c constraints.txt ".[serve,search]"
COPY serve ./serve

RUN useradd --create-home --uid 1000 hypclip
USER 1000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["python", "-m", "serve"]
