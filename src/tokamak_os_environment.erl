%% SPDX-License-Identifier: Apache-2.0
%% @doc The environment of this VM byte by byte, as a port's program gets it.
%%
%% {@link os:env/0} gives characters. With file names in UTF-8 it gives what is no UTF-8 byte by byte: the byte 255 and
%% the character 255 are the same there. Which of them it is, only the variable itself can tell, each time.
%% @private
-module(tokamak_os_environment).

-export([encode/0]).

%% @doc Each variable as `Name=Value' and a NUL.
-spec encode() -> binary().
encode() ->
    {Certain, Doubtful} = kept(os:env()),
    case Doubtful of
        [] -> Certain;
        _ -> iolist_to_binary([Certain | [entry(Name, tokamak_nif:os_variable(Name)) || Name <- Doubtful]])
    end.

%% An environment seldom changes, and encoding it takes long.
kept(Environment) ->
    case persistent_term:get(?MODULE, undefined) of
        {Environment, Encoded} ->
            Encoded;
        undefined ->
            Encoded = encode(Environment),
            persistent_term:put(?MODULE, {Environment, Encoded}),
            Encoded;
        %% Replacing a persistent term is dear for all processes: one that changed is encoded each time.
        _ ->
            encode(Environment)
    end.

%% What is certain, and the names that have to be asked for.
encode(Environment) ->
    {Certain, Doubtful} = lists:foldl(fun add/2, {[], []}, Environment),
    {iolist_to_binary(Certain), lists:usort(Doubtful)}.

add({NameText, ValueText}, {Certain, Doubtful}) ->
    case {encodings(NameText), encodings(ValueText)} of
        {[Name], [Value]} -> {[entry(Name, Value) | Certain], Doubtful};
        {Names, _} -> {Certain, Names ++ Doubtful}
    end.

%% Gone, or never there by this name.
entry(_Name, false) -> [];
entry(Name, Value) -> [Name, $=, Value, 0].

%% The bytes that a text of the environment may stand for. Mostly it is ASCII, which is quickly seen.
encodings(Text) ->
    try list_to_binary(Text) of
        Bytes ->
            case unicode:characters_to_binary(Bytes, latin1, utf8) of
                Bytes -> [Bytes];
                _ -> with_bytes(encoded(Text), Bytes)
            end
    catch
        %% Characters beyond bytes: it was decoded.
        error:badarg -> [encoded(Text)]
    end.

encoded(Text) ->
    {ok, Encoded} = tokamak_os_text:encode(Text),
    Encoded.

%% What is UTF-8 the VM decodes: it never gives such bytes as they are.
with_bytes(Bytes, Bytes) ->
    [Bytes];
with_bytes(Encoded, Bytes) ->
    case unicode:characters_to_list(Bytes) of
        Characters when is_list(Characters) -> [Encoded];
        _ -> [Encoded, Bytes]
    end.
