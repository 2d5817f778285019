// nftables in one network namespace, through libnftables. Nothing but numbers ever goes into its text.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"

struct nft_ctx;

namespace spore::isolation {

// One thread at a time.
class Firewall {
 public:
  // Of the current network namespace of the calling thread. kFailedPrecondition where the kernel has no nf_tables.
  static Result<Firewall> open();

  // All of these commands or none.
  Result<void> run(const std::string& commands);
  // What a command prints ("list tables").
  Result<std::string> list(const std::string& command);

 private:
  struct Free {
    void operator()(nft_ctx* context) const;
  };
  std::unique_ptr<nft_ctx, Free> context_;
};

}  // namespace spore::isolation
