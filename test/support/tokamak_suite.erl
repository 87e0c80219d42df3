%% SPDX-License-Identifier: Apache-2.0
%% @doc Runs all tests with nothing but an OTP and native libraries that are there already: compiles the
%% library and its tests into _build/suite/lib/tokamak of the working directory, as rebar3 does for its
%% profiles, and writes to _build/suite/summary how many passed. See scripts/test-otp.sh.
-module(tokamak_suite).

-export([main/0]).
-behaviour(eunit_listener).
-export([start/1, init/1, handle_begin/3, handle_end/3, handle_cancel/3, terminate/2]).

-define(APPLICATION, "_build/suite/lib/tokamak").

%% @doc Ends the VM, with 0 if all tests passed.
-spec main() -> no_return().
main() ->
    ok = arrange(),
    ok = write_app(compile("src/*.erl", "ebin")),
    [_ | _] = compile("test/{support,bench}/*.erl", "test"),
    Result = eunit:test(compile("test/*_tests.erl", "test"), [verbose, {report, {?MODULE, []}}]),
    halt(case Result of ok -> 0; _ -> 1 end).

%% The directories that the application and its tests look for.
arrange() ->
    _ = file:del_dir_r(?APPLICATION),
    [ok = filelib:ensure_path(directory(Name)) || Name <- ["ebin", "test"]],
    [ok = file:make_symlink(filename:absname(Name), directory(Name)) || Name <- ["src", "include", "priv"]],
    true = code:add_patha(directory("ebin")),
    true = code:add_patha(directory("test")),
    ok.

directory(Name) ->
    filename:absname(filename:join(?APPLICATION, Name)).

%% A newer compiler's warnings are shown, and fail nothing.
compile(Pattern, Directory) ->
    Options = [debug_info, report, {i, "include"}, {outdir, directory(Directory)}],
    Results = [{File, compile:file(File, Options)} || File <- filelib:wildcard(Pattern)],
    [] = [File || {File, error} <- Results],
    [Module || {_, {ok, Module}} <- Results].

write_app(Modules) ->
    {ok, [{application, Name, Keys}]} = file:consult("src/tokamak.app.src"),
    Application = {application, Name, lists:keyreplace(modules, 1, Keys, {modules, Modules})},
    file:write_file(
        filename:join(directory("ebin"), "tokamak.app"), io_lib:format("~p.~n", [Application])
    ).

%%% The summary, beside what eunit prints itself

start(Options) -> eunit_listener:start(?MODULE, Options).

init(_Options) -> [].

handle_begin(_Kind, _Data, State) -> State.

handle_end(_Kind, _Data, State) -> State.

handle_cancel(_Kind, _Data, State) -> State.

terminate({ok, Counts}, _State) ->
    [Passed, Failed, Skipped, Cancelled] = [
        proplists:get_value(Key, Counts, 0) || Key <- [pass, fail, skip, cancel]
    ],
    summary("~b passed, ~b failed, ~b skipped, ~b cancelled", [Passed, Failed, Skipped, Cancelled]);
terminate({error, Reason}, _State) ->
    summary("the run broke off: ~0p", [Reason]).

summary(Format, Arguments) ->
    Line = io_lib:format("OTP ~s: " ++ Format ++ "~n", [erlang:system_info(otp_release) | Arguments]),
    ok = file:write_file("_build/suite/summary", Line).
