// Bundled whole by itself: what few calls need is loaded with the first of them, and weighs on no start.
export { DeleteObjectCommand, GetObjectCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
