//! AMI manifest, block device mappings, register request.
