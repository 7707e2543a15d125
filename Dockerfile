# The runtime alone: no torch. docker build -t posewright . && docker run --rm -p 8000:8000 posewright
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY service service
COPY clients/browser clients/browser
# The wheel names both packages; training's code weighs kilobytes, its dependencies stay out.
COPY training training
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home posewright
COPY --from=build /venv /venv
USER 10001
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 POSEWRIGHT_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('POSEWRIGHT_PORT', '8000')}/readyz\", timeout=2)"]
ENTRYPOINT ["posewright-serve"]
