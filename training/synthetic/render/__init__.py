"""Software renderer: turns posed meshes into JPEG images and COCO annotations."""
