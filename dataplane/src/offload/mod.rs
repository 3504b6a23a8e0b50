//! Finishing checksums and splitting super-frames in software.
