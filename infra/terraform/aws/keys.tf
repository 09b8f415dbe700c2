# One key for what is at rest: secrets of MSK have to be encrypted with a key of the account's own.

resource "aws_kms_key" "this" {
  description             = "${var.name}: secrets, Kafka's and Redis' disks, buckets"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.key_id
}
