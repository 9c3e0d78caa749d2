"""What a walk-through says by itself, in every language it speaks: a table from a key to a sentence for each.

    words = Words("zh")
    words("step", number=1, total=7)

Commands, YAML, log lines, names and what programs print are the same in every language and are not here.
"""

from __future__ import annotations

from typing import Any as Json

LANGUAGES = ("en", "zh")

CATALOGUE: dict[str, tuple[str, str]] = {
    # The frame
    "step": ("Step {number} of {total}", "第 {number} 步，共 {total} 步"),
    "processes": (
        "A process for each proxy ({pods}) and one for the outside; nothing leaves this machine.",
        "每个代理（{pods}）一个进程，网格之外的站点一个进程；没有任何流量离开本机。",
    ),
    "netns": (
        "network: netns, a network namespace for each pod; any program is captured",
        "网络：netns，每个 pod 一个网络命名空间，任何程序的流量都会被拦截",
    ),
    "loopback": (
        "network: loopback, Unix sockets; applications come in by ALL_PROXY",
        "网络：loopback，使用 Unix 套接字；应用程序通过 ALL_PROXY 进入",
    ),
    "loopback because": ("network: loopback, because {missing}", "网络：loopback，原因：{missing}"),
    "no curl": (
        "curl is not installed: meshsim's own client stands in, over HTTP/1.1 only.",
        "没有安装 curl：由 meshsim 自带的客户端代替，只支持 HTTP/1.1。",
    ),
    "wait": ("Enter", "按回车键继续"),
    "passed": ("all {total} steps as the page shows; {seconds} s", "全部 {total} 步都与页面一致；用时 {seconds} 秒"),
    "failed": (
        "{failed} of {total} steps not as the page shows; {seconds} s",
        "共 {total} 步，其中 {failed} 步与页面不一致；用时 {seconds} 秒",
    ),
    "no walk-through": ("{folder} has no walk-through", "{folder} 没有演示步骤"),
    # What a step showed
    "left out": ("... lines left out: {count}", "……省略 {count} 行"),
    "exit": ("exit status {status}", "退出码 {status}"),
    "logged": ("{pod} logged", "{pod} 的日志"),
    "logged nothing": ("{pod} logged nothing", "{pod} 没有写日志"),
    "counter": ("counter of {pod}", "{pod} 的计数器"),
    "ok": ("ok", "通过"),
    "not ok": ("not ok", "不符"),
    "saw": ("{pod} saw the request", "{pod} 看到了这个请求"),
    "saw nothing": ("{pod} saw nothing of it", "{pod} 没有看到这个请求"),
    "also": ("; ", "；"),
    # What is not as the page shows
    "other exit": ("exit status {seen}, expected {expected}", "退出码为 {seen}，应为 {expected}"),
    "other responses": ("{seen} responses, expected {expected}", "有 {seen} 个响应，应有 {expected} 个"),
    "other status": ("status {seen}, expected {expected}", "状态码为 {seen}，应为 {expected}"),
    "other version": ("{seen}, expected {expected}", "版本为 {seen}，应为 {expected}"),
    "other location": ("location {seen!r}, expected {expected!r}", "location 为 {seen!r}，应为 {expected!r}"),
    "lacks": ("the output lacks {text!r}", "输出中没有 {text!r}"),
    "not in log": ("{pod} did not log a line with {texts}", "{pod} 的日志中没有包含 {texts} 的行"),
    "in log": ("{pod} logged a line with {texts}", "{pod} 的日志中不应有包含 {texts} 的行"),
    "and": (" and ", " 和 "),
    "other count": (
        "{pod}: {name} went from {before} to {after}, expected +{grows}",
        "{pod}：{name} 从 {before} 变为 {after}，应增加 {grows}",
    ),
    # Who spoke what to whom
    "gateway": ("gateway", "网关"),
    "sidecar": ("sidecar of {pod}", "{pod} 的 sidecar"),
    "leg": ("{start} -> {end}: {said}", "{start} -> {end}：{said}"),
    "leg with SNI": ("{start} -> {end}: {said}, SNI {sni}", "{start} -> {end}：{said}，SNI {sni}"),
    "plaintext": ("{protocol} in plaintext", "明文 {protocol}"),
    "encrypted": ("{tls}, {protocol} inside", "{tls}，内层为 {protocol}"),
    "encrypted twice": ("TLS in {tls}, {protocol} inside", "{tls} 中再套 TLS，内层为 {protocol}"),
    "own TLS": ("the client's own TLS, SNI {sni}", "客户端自己的 TLS，SNI {sni}"),
    "lost": ("no request arrives", "没有请求到达"),
    "no SNI": ("(none)", "（无）"),
    "server": ("server {name}", "服务端 {name}"),
    "client": ("client {name}", "客户端 {name}"),
}


class Words:
    """The catalogue in one language."""

    def __init__(self, language: str = LANGUAGES[0]):
        self.language = language
        self._column = LANGUAGES.index(language)

    def __call__(self, key: str, **values: Json) -> str:
        """The sentence of that key with its values put in."""
        return CATALOGUE[key][self._column].format(**values)


ENGLISH = Words()
