%% SPDX-License-Identifier: Apache-2.0
%% @doc Makes a release that contains tokamak, with what OTP has for it, and shows that it runs.
%%
%% scripts/test-examples.sh calls both: make/1 where the code is built, and main/0 inside the release.
-module(release_example).

-export([make/1, main/0]).

-define(NAME, "release_example").

%% @doc Writes a release as `release_example.tar.gz' in a directory; the code path has all applications.
make([Directory]) ->
    Name = filename:join(Directory, ?NAME),
    ok = write(Name ++ ".app", application()),
    ok = write(Name ++ ".rel", release()),
    Path = {path, [Directory | code:get_path()]},
    ok = systools:make_script(Name, [Path, {outdir, Directory}, no_warn_sasl]),
    ok = systools:make_tar(Name, [Path, {outdir, Directory}, {erts, code:root_dir()}, no_warn_sasl]),
    io:format("made ~s.tar.gz~n", [Name]).

application() ->
    {application, release_example, [
        {description, "Uses tokamak in a release"},
        {vsn, "1"},
        {modules, [?MODULE]},
        {registered, []},
        {applications, [kernel, stdlib, tokamak]}
    ]}.

release() ->
    Applications = [{release_example, "1"} | [{App, version(App)} || App <- [kernel, stdlib, tokamak]]],
    {release, {?NAME, "1"}, {erts, erlang:system_info(version)}, Applications}.

version(App) ->
    _ = application:load(App),
    {ok, Version} = application:get_key(App, vsn),
    Version.

write(File, Term) ->
    file:write_file(File, io_lib:format("~tp.~n", [Term])).

%% @doc What the release does: a call, and a program, which needs the spawner in tokamak's priv directory.
main() ->
    {ok, hello} = tokamak:call(echo, [hello]),
    {ok, ok} = tokamak:call(sleep, [1]),
    {ok, #{status := 0, stdout := <<"from a program\n">>}} = tokamak_subprocess:run(["echo", "from a program"]),
    io:format("~s: ~s, ~s mode~n", [?NAME, code:priv_dir(tokamak), mode()]),
    init:stop().

mode() ->
    case init:get_argument(mode) of
        {ok, [["embedded"]]} -> "embedded";
        _ -> "interactive"
    end.
