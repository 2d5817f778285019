#include "isolation/firewall.h"

extern "C" {
#include <nftables/libnftables.h>
}

namespace spore::isolation {

void Firewall::Free::operator()(nft_ctx* context) const { ::nft_ctx_free(context); }

Result<Firewall> Firewall::open() {
  Firewall out;
  out.context_.reset(::nft_ctx_new(NFT_CTX_DEFAULT));
  if (!out.context_) return fail(ErrorCode::kFailedPrecondition, "libnftables cannot be used");
  ::nft_ctx_buffer_error(out.context_.get());
  ::nft_ctx_buffer_output(out.context_.get());
  if (auto tables = out.list("list tables"); !tables)
    return fail(ErrorCode::kFailedPrecondition, "nf_tables cannot be used: " + tables.error().message);
  return out;
}

Result<std::string> Firewall::list(const std::string& command) {
  if (::nft_run_cmd_from_buffer(context_.get(), command.c_str()) != 0) {
    const std::string all = ::nft_ctx_get_error_buffer(context_.get());
    (void)::nft_ctx_get_output_buffer(context_.get());
    return fail(ErrorCode::kInternal, "nftables: " + all.substr(0, std::min<size_t>(all.find('\n'), 500)));
  }
  return std::string(::nft_ctx_get_output_buffer(context_.get()));
}

Result<void> Firewall::run(const std::string& commands) {
  TRY(list(commands));
  return {};
}

}  // namespace spore::isolation
