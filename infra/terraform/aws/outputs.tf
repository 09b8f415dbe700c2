output "cluster_name" {
  description = "For `aws eks update-kubeconfig --name`."
  value       = aws_eks_cluster.this.name
}

output "image_repository" {
  description = "IMAGE_REPOSITORY of overlays/aws."
  value       = aws_ecr_repository.this.repository_url
}

output "kafka_bootstrap_servers" {
  description = "KAFKA_BOOTSTRAP_SERVERS of overlays/aws: SASL over TLS."
  value       = aws_msk_cluster.this.bootstrap_brokers_sasl_scram
}

output "kafka_secret_arn" {
  description = "Secret with the username and password of Kafka's user."
  value       = aws_secretsmanager_secret.kafka.arn
}

output "redis_host" {
  description = "REDIS_HOST of overlays/aws; port 6379, TLS."
  value       = aws_elasticache_replication_group.this.primary_endpoint_address
}

output "redis_secret_arn" {
  description = "Secret with the username and password of Redis' user."
  value       = aws_secretsmanager_secret.redis.arn
}

output "lake_bucket" {
  description = "Bucket for events as Parquet."
  value       = aws_s3_bucket.this["lake"].id
}

output "snapshots_bucket" {
  description = "SNAPSHOTS_BUCKET of overlays/aws."
  value       = aws_s3_bucket.this["snapshots"].id
}

output "region" {
  description = "AWS_REGION of overlays/aws."
  value       = var.region
}

output "vpc_cidr" {
  description = "What overlays/aws/network-patch.yaml lets workers reach Kafka and Redis in."
  value       = var.vpc_cidr
}
